-- Have an instance take no work for a while, unless too many are ejected already.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] sorted set: ejected instances by until when   KEYS[3] set: members
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] state   ARGV[4] for how long, s
-- ARGV[5] ejections that count against it   ARGV[6] reason
-- ARGV[7] share of those that live that may be ejected at a time; one may always
-- ARGV[8] what the key of a record begins with
--
-- Returns {1, until when (s)} · {0, "<state>:<epoch>"} as found if it is not the one that was
-- judged · {-1, how many are ejected} if no more may be, or it is the last one.

local record = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[3] then
  return {0, (record[2] or 'none') .. ':' .. (record[1] or '0')}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local living = 0
for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local state = redis.call('HGET', ARGV[8] .. id, 'state')
  if state == 'ACTIVE' or state == 'DEGRADED' then living = living + 1 end
end
if living < 2 then
  return {-1, '0'} -- a bad instance is better than none
end
local most = math.max(1, math.floor(living * tonumber(ARGV[7])))
local others = redis.call('ZCARD', KEYS[2])
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  others = others - 1
end
if others >= most then
  return {-1, tostring(others)}
end
local till = string.format('%.6f', now + tonumber(ARGV[4]))
redis.call('ZADD', KEYS[2], till, ARGV[1])
redis.call('HSET', KEYS[1], 'ejected_until', till, 'ejections', ARGV[5], 'ejected_why', ARGV[6])
return {1, till}
