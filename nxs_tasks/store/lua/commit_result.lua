-- Store the state of a task and tell it to who waits, as Celery's Redis backend does. What stands
-- before it (guard.lua) checks that the task's message is still held.
--
-- KEYS[1] string: the task's state, and the name of the channel on which it is told
-- ARGV[1] the state, encoded   ARGV[2] seconds for which it is kept, 0 = without end
--
-- Returns 1.

if tonumber(ARGV[2]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
