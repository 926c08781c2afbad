-- A task has ended: its message is dropped, if it still is its holder's.
--
-- KEYS[1] hash: in flight   KEYS[2] sorted set: in flight, by time
-- KEYS[3] string: the lock of the task's unique_key (given only if it has one)
-- ARGV[1] token   ARGV[2] task id (only with KEYS[3])
--
-- Returns 1, or 0 if the message had been taken from this holder.

redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if KEYS[3] and redis.call('GET', KEYS[3]) == ARGV[2] then
  redis.call('DEL', KEYS[3])
end
return 1
