-- A task begins, or goes on: what it has saved last. Only while its message is held.
--
-- What was saved is known by the task's id, and an id may be another task's later (`replace`): that
-- one starts with nothing.
--
-- KEYS[1] hash: the checkpoint   KEYS[2] hash: in flight, of the process that took the message
-- ARGV[1] token of the delivery   ARGV[2] instance that took it   ARGV[3] name of the task
-- ARGV[4] ms for which a checkpoint is kept that nobody opens or saves
--
-- A move that was asked for is done when the task is where it should go; one without a target, when
-- it is with another instance, or has stopped for it.
--
-- Returns {1, the state that was saved, empty if none was} · {0, ''} if the message was taken.

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return {0, ''}
end
local known = redis.call('HMGET', KEYS[1], 'task', 'state', 'move_to', 'move_of', 'stopped')
local task, state, to, of, stopped = known[1], known[2], known[3], known[4], known[5]
if task and task ~= ARGV[3] then
  redis.call('DEL', KEYS[1])
  state, to = false, false
end
if to and (to == ARGV[2] or to == '' and (of ~= ARGV[2] or stopped and stopped ~= ARGV[1])) then
  redis.call('HDEL', KEYS[1], 'move_to', 'move_of', 'move_by', 'move_at', 'stopped')
end
redis.call('HSET', KEYS[1], 'task', ARGV[3], 'token', ARGV[1], 'inflight', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, state or ''}
