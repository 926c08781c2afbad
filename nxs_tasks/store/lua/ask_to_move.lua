-- Ask a running task to go on elsewhere. Asked again, the newest target counts.
--
-- KEYS[1] hash: the checkpoint   KEYS[2] hash: in flight, of the process that holds the message
-- KEYS[3] hash: record of the target (only if one is named)
-- ARGV[1] token of the delivery   ARGV[2] instance that holds it
-- ARGV[3] target, empty = any other   ARGV[4] by whom
--
-- Returns 1, or 0 if the same was asked before · -1 if the message is not held any more · -2 if the
-- task has opened no checkpoint · -3 if the target is not ACTIVE.

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return -1
end
local known = redis.call('HMGET', KEYS[1], 'token', 'move_to', 'move_of')
if not known[1] then
  return -2
end
if KEYS[3] and redis.call('HGET', KEYS[3], 'state') ~= 'ACTIVE' then
  return -3
end
if known[2] == ARGV[3] and known[3] == ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
redis.call('HSET', KEYS[1], 'move_to', ARGV[3], 'move_of', ARGV[2], 'move_by', ARGV[4],
  'move_at', now)
redis.call('HDEL', KEYS[1], 'stopped')
return 1
