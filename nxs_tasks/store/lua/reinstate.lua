-- Take a cancellation back: the message returns to the front of its list, and its id is forgotten.
--
-- KEYS[1] hash: the shelf of what is cancelled   KEYS[2] sorted set: its index
-- KEYS[3] hash: tasks whose result is not REVOKED yet
-- KEYS[4] sorted set: cancelled ids   KEYS[5] hash: by whom and when
-- KEYS[6] list: to   KEYS[7] string: the lock of its unique_key (given only if it has one)
-- ARGV[1] entry id   ARGV[2] task id   ARGV[3] text to write
--
-- Returns '' if it is back, '-' if the entry is not there any more, or the id of the task that has
-- its unique_key now: then nothing is changed.

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return '-'
end
if KEYS[7] then
  local owner = redis.call('GET', KEYS[7])
  owner = owner and string.match(owner, '^[^\n]*')
  if owner and owner ~= ARGV[2] then
    return owner
  end
  redis.call('SET', KEYS[7], ARGV[2])
end
redis.call('RPUSH', KEYS[6], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[5], ARGV[2])
return ''
