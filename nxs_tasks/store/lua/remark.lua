-- Record what was done about an instance that stays in its state, among its transitions.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] what kind of thing was done   ARGV[4] what and why
-- ARGV[5] evidence JSON   ARGV[6] longest stream
--
-- Returns {1, stream id}, or {0, "<state>:<epoch>"} as found if another process has the name.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if record[2] ~= ARGV[2] then
  return {0, (record[1] or 'none') .. ':' .. (record[2] or '0')}
end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'at', now,
  'instance', ARGV[1], 'epoch', ARGV[2], 'source', record[1], 'target', record[1],
  'event', ARGV[3], 'reason', ARGV[4], 'evidence', ARGV[5])
return {1, id}
