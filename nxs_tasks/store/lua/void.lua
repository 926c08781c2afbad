-- Decide what became of a write that nobody has heard of: it was accepted, or it never will be.
--
-- The command may still lie before the server, in a socket that its sender has closed. A number and
-- a half stands for "all up to here, but the last is void", and is refused by publish.lua.
--
-- KEYS[1] string with TTL: number of the producer's last accepted write
-- ARGV[1] number of the write, which is the producer's last
-- ARGV[2] seconds for which a repetition is known
--
-- Returns 1 if it is void, 0 if it was accepted; asked again the same.

local number = tonumber(ARGV[1])
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if last == number + 0.5 then
  return 1
end
if last >= number then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. '.5', 'EX', ARGV[2])
return 1
