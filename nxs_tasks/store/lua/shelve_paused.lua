-- Put a held message on the shelf of what is paused, if its task still is.
--
-- Whoever resumes the task looks for what lies there after it was resumed, so nothing is forgotten.
--
-- KEYS[1] hash: in flight   KEYS[2] sorted set: in flight, by time
-- KEYS[3] set: paused tasks
-- KEYS[4] hash: the shelf   KEYS[5] sorted set: its index
-- ARGV[1] token, and id of the entry   ARGV[2] task   ARGV[3] the entry   ARGV[4] time (s)
--
-- Returns 1 if it is not this process's any more (it lies on the shelf, or was taken before); 0 if
-- the task is not paused.

if redis.call('SISMEMBER', KEYS[3], ARGV[2]) == 0 then
  return 0
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
  redis.call('ZADD', KEYS[5], ARGV[4], ARGV[1])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
