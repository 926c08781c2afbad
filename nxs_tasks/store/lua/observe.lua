-- Note that the fleet is being observed, and tell since when it is without a break, and believed.
--
-- KEYS[1] hash: the observation (since, last, doubted, believed)
-- ARGV[1] longest pause between two looks that is no break, s
--
-- Returns {server time since when, seconds since the last look; 0 if there was none, server time of
-- the first look after the last one that was doubted; 0 if none was}.

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local known = redis.call('HMGET', KEYS[1], 'since', 'last', 'doubted', 'believed')
local since = known[1]
if not since or not known[2] or tonumber(now) - tonumber(known[2]) > tonumber(ARGV[1]) then
  since = now
end
local believed = known[3] == '1' and now or known[4] or '0'
redis.call('HSET', KEYS[1], 'since', since, 'last', now, 'doubted', 0, 'believed', believed)
local gap = known[2] and tonumber(now) - tonumber(known[2]) or 0
return {since, string.format('%.6f', gap), believed}
