-- Give an instance no work for a while, because it is lost again and again; and record it.
--
-- KEYS[1] hash: the instance's record   KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] state   ARGV[4] level that was judged
-- ARGV[5] level from now on   ARGV[6] server time of the loss   ARGV[7] until when, 0 = it is told
-- ARGV[8] reason   ARGV[9] evidence JSON   ARGV[10] longest stream
--
-- Returns {1, stream id}, or {0, "<state>:<epoch>:<level>"} as found.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'flap_level', 'level_at')
local level = record[3] or '0'
-- Another observer may have judged the same loss.
local again = record[4] and tonumber(record[4]) >= tonumber(ARGV[6])
if record[1] ~= ARGV[3] or record[2] ~= ARGV[2] or level ~= ARGV[4] or again then
  return {0, (record[1] or 'none') .. ':' .. (record[2] or '0') .. ':' .. level}
end
redis.call('HSET', KEYS[1], 'flap_level', ARGV[5], 'level_at', ARGV[6], 'withheld_until', ARGV[7],
  'withheld_why', ARGV[8])
local time = redis.call('TIME')
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[10], '*',
  'at', time[1] .. '.' .. string.format('%06d', tonumber(time[2])), 'instance', ARGV[1],
  'epoch', ARGV[2], 'source', ARGV[3], 'target', ARGV[3], 'event', 'withheld',
  'reason', ARGV[8], 'evidence', ARGV[9])
return {1, id}
