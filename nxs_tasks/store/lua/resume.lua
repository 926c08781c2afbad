-- Resume a queue or a task.
--
-- KEYS[1] set: names that are paused   KEYS[2] hash: since when, by whom and why
-- ARGV[1] name   ARGV[2] field of the hash
--
-- Returns 1, or 0 if it was not paused.

redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('SREM', KEYS[1], ARGV[1])
