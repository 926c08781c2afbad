-- Append one message, if no other task has its unique key; once, as publish.lua does.
--
-- KEYS[1] string with TTL: number of the producer's last accepted write
-- KEYS[2] string: who has the unique key (`unique.py`)   KEYS[3] list
-- ARGV[1] number of this write   ARGV[2] seconds for which a repetition is known
-- ARGV[3] task id   ARGV[4] message   ARGV[5] age of the message: 0 = the first of its task; a later
--   one (a retry, a replacement) is written whoever has the key
--
-- Returns the id of the task that has the key now: ARGV[3] if this write was accepted, now or
-- before, or if that task is there already.

if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return ARGV[3]
end
local owner = redis.call('GET', KEYS[2])
owner = owner and string.match(owner, '^[^\n]*')
if owner and ARGV[5] == '0' then
  return owner
end
redis.call('LPUSH', KEYS[3], ARGV[4])
if not owner or owner == ARGV[3] then
  redis.call('SET', KEYS[2], ARGV[5] == '0' and ARGV[3] or ARGV[3] .. '\n' .. ARGV[5])
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[3]
