-- Have a cordoned instance take work again, and record who said so.
--
-- KEYS[1] hash: the instance's record   KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] state   ARGV[4] what the record in the stream says
-- ARGV[5] longest stream
--
-- Returns {1, who had cordoned it and why}; {2, ''} if it was not cordoned; {0, "<state>:<epoch>"} as
-- found if it is not what was judged.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'cordoned')
if record[1] ~= ARGV[3] or record[2] ~= ARGV[2] then
  return {0, (record[1] or 'none') .. ':' .. (record[2] or '0')}
end
if not record[3] or record[3] == '' then
  return {2, ''}
end
redis.call('HDEL', KEYS[1], 'cordoned', 'drain')
local time = redis.call('TIME')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*',
  'at', time[1] .. '.' .. string.format('%06d', tonumber(time[2])),
  'instance', ARGV[1], 'epoch', ARGV[2], 'source', ARGV[3], 'target', ARGV[3],
  'event', 'uncordon', 'reason', ARGV[4], 'evidence', '{}')
return {1, record[3]}
