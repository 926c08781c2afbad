-- Give a lead up, if it is ours.
--
-- KEYS[1] string with TTL: who leads   KEYS[2] hash: about the one of this term
-- KEYS[3] sorted set: every beat of the app
-- ARGV[1] who resigns   ARGV[2] "1" if it ends, and stands by no more
--
-- Returns 1 if it was ours, else 0.

if ARGV[2] == '1' then
  redis.call('ZREM', KEYS[3], ARGV[1])
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], 'resigned', time[1] .. '.' .. string.format('%06d', tonumber(time[2])))
return redis.call('DEL', KEYS[1])
