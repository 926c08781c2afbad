-- Have an instance take no new work until it is taken back, and record who said so.
--
-- One that is cordoned by a person stays so through a drain, and through restarts under its name. A
-- cordon that a drain has made ends with the process that it drains (join.lua).
--
-- KEYS[1] hash: the instance's record   KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] state   ARGV[4] who and why, for whoever looks
-- ARGV[5] "1" if it is for a drain   ARGV[6] what the record in the stream says
-- ARGV[7] longest stream
--
-- Returns {1, ''}; {2, who and why} if it was cordoned before: then a drain changes nothing of that,
-- and a person's word replaces it; {0, "<state>:<epoch>"} as found if it is not what was judged.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'cordoned', 'drain')
if record[1] ~= ARGV[3] or record[2] ~= ARGV[2] then
  return {0, (record[1] or 'none') .. ':' .. (record[2] or '0')}
end
local before = record[3] and record[3] ~= '' and record[3]
local drains = ARGV[5] == '1'
if drains then
  -- The last drain counts; of a cordon that another drain has made it is the heir.
  redis.call('HSET', KEYS[1], 'drain', ARGV[4])
  if not before or before == record[4] then
    redis.call('HSET', KEYS[1], 'cordoned', ARGV[4])
  end
else
  redis.call('HSET', KEYS[1], 'cordoned', ARGV[4])
end
local time = redis.call('TIME')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*',
  'at', time[1] .. '.' .. string.format('%06d', tonumber(time[2])),
  'instance', ARGV[1], 'epoch', ARGV[2], 'source', ARGV[3], 'target', ARGV[3],
  'event', drains and 'drain' or 'cordon', 'reason', ARGV[6], 'evidence', '{}')
if before then
  return {2, before}
end
return {1, ''}
