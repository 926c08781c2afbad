-- Note that the fleet is being observed, and tell since when it is without a break.
--
-- KEYS[1] hash: the observation (since, last)
-- ARGV[1] longest pause between two looks that is no break, s
--
-- Returns {server time since when, seconds since the last look; 0 if there was none}.

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local known = redis.call('HMGET', KEYS[1], 'since', 'last')
local since = known[1]
if not since or not known[2] or tonumber(now) - tonumber(known[2]) > tonumber(ARGV[1]) then
  since = now
end
redis.call('HSET', KEYS[1], 'since', since, 'last', now)
local gap = known[2] and tonumber(now) - tonumber(known[2]) or 0
return {since, string.format('%.6f', gap)}
