-- A task has ended: its message is dropped, if it still is its holder's.
--
-- KEYS[1] hash: in flight   KEYS[2] sorted set: in flight, by time
-- KEYS[3] string: who has the task's unique_key (`unique.py`; not given, or empty, if it has none)
-- KEYS[4] hash: the task's checkpoint (given only if it may have one)
-- ARGV[1] token   ARGV[2] task id   ARGV[3] age of the message (both only with KEYS[3])
--
-- The key stays if a later message of the task has it: a retry, or what the task was replaced by.
-- The checkpoint stays if another delivery that is held has opened it.
--
-- Returns 1, or 0 if the message had been taken from this holder.

redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if KEYS[4] then
  local opened = redis.call('HMGET', KEYS[4], 'token', 'inflight')
  local by, where = opened[1], opened[2]
  if not by or by == ARGV[1] or redis.call('HEXISTS', where, by) == 0 then
    redis.call('DEL', KEYS[4])
  end
end
local owner = KEYS[3] and KEYS[3] ~= '' and redis.call('GET', KEYS[3])
if owner and string.match(owner, '^[^\n]*') == ARGV[2]
  and tonumber(string.match(owner, '\n(%d+)$') or '0') <= tonumber(ARGV[3]) then
  redis.call('DEL', KEYS[3])
end
return 1
