-- Save how far a task is, if its message is still held, and say whether it is to go on elsewhere.
--
-- KEYS[1] hash: the checkpoint   KEYS[2] hash: in flight, of the process that took the message
-- ARGV[1] token of the delivery   ARGV[2] name of the task   ARGV[3] the state, JSON
-- ARGV[4] ms for which a checkpoint is kept that nobody opens or saves
-- ARGV[5] what the key of an instance's record begins with
--
-- It does not stop for a target that could not take it now: it goes on, and is asked again.
--
-- Returns {1, ''} saved · {2, target, empty if none was named} saved, and the task stops here ·
-- {0, ''} the message was taken, and nothing is saved.

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return {0, ''}
end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
redis.call('HSET', KEYS[1], 'task', ARGV[2], 'token', ARGV[1], 'inflight', KEYS[2],
  'state', ARGV[3], 'at', now)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local to = redis.call('HGET', KEYS[1], 'move_to')
if not to or (to ~= '' and redis.call('HGET', ARGV[5] .. to, 'state') ~= 'ACTIVE') then
  return {1, ''}
end
redis.call('HSET', KEYS[1], 'stopped', ARGV[1])
return {2, to}
