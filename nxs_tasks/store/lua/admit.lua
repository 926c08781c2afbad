-- Let an instance in that FAILED, or is withheld: a person has seen to what was wrong.
--
-- KEYS[1] hash: the instance's record   KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] who says so   ARGV[3] longest stream
--
-- Its losses are forgotten too, or the next one would have it withheld at once.
--
-- Returns {state, until when it was withheld (s)}, or {} if there is no such instance.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'withheld_until')
if not record[1] then
  return {}
end
redis.call('HDEL', KEYS[1], 'losses', 'flap_level', 'level_at', 'withheld_until', 'withheld_why')
if record[1] == 'FAILED' then
  -- As if it had failed long ago.
  redis.call('HSET', KEYS[1], 'since', 0)
end
local time = redis.call('TIME')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*',
  'at', time[1] .. '.' .. string.format('%06d', tonumber(time[2])), 'instance', ARGV[1],
  'epoch', record[2] or '0', 'source', record[1], 'target', record[1], 'event', 'admitted',
  'reason', 'let in by ' .. ARGV[2], 'evidence', '{}')
return {record[1], record[3] or '0'}
