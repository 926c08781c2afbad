-- Take messages from their holder and put each where it is told: a list, or a shelf.
--
-- Written first and removed afterwards, because a script that is refused memory is not undone.
--
-- KEYS[1] hash: the holder's record
-- KEYS[2] hash: in flight   KEYS[3] sorted set: in flight, by time
-- KEYS[4] set: processes that may hold messages
-- KEYS[5] stream: losses
-- ARGV[1] instance id   ARGV[2] epoch
-- ARGV[3] "1" = only if that process is no longer part of the fleet
-- ARGV[4] time (s) if the process is lost for each of them, else empty   ARGV[5] longest stream
-- ARGV[6], … for each message nine: token, key of the list or of the shelf's hash, text to write,
--   and for a shelf entry id and time; for a list an empty id, and "front" to be taken next (so the
--   oldest is given last) or "back" to wait at the end of the line; key that says who has
--   its unique_key, freed if it is this message (or empty); the task's id, its name, and the age of
--   the message (`unique.py`)
--
-- Returns the number moved; -1 if the process is (again) part of the fleet.

local record = redis.call('HMGET', KEYS[1], 'epoch', 'state')
local ended = record[1] ~= ARGV[2] or record[2] == 'GONE' or record[2] == 'FAILED'
if ARGV[3] == '1' and not ended then
  return -1
end
local moved = 0
for i = 6, #ARGV, 9 do
  local token, key, text, entry, at = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local lock, task_id = ARGV[i + 5], ARGV[i + 6]
  if redis.call('HEXISTS', KEYS[2], token) == 1 then
    if entry == '' then
      redis.call(at == 'back' and 'LPUSH' or 'RPUSH', key, text)
    else
      redis.call('HSET', key, entry, text)
      redis.call('ZADD', (string.gsub(key, ':shelf:', ':shelf-index:', 1)), at, entry)
    end
    local owner = lock ~= '' and redis.call('GET', lock)
    if owner and string.match(owner, '^[^\n]*') == task_id
      and tonumber(string.match(owner, '\n(%d+)$') or '0') <= tonumber(ARGV[i + 8]) then
      redis.call('DEL', lock)
    end
    if ARGV[4] ~= '' then
      redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[5], '*', 'at', ARGV[4], 'task_id', task_id,
        'task', ARGV[i + 7], 'instance', ARGV[1], 'epoch', ARGV[2],
        'became', entry == '' and 'given back' or 'quarantine')
    end
    redis.call('HDEL', KEYS[2], token)
    moved = moved + 1
  end
  redis.call('ZREM', KEYS[3], token)
end
if ended and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[3])
  redis.call('SREM', KEYS[4], ARGV[1] .. ':' .. ARGV[2])
end
return moved
