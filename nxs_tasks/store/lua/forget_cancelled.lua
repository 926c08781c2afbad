-- Forget cancelled ids whose time is over, and the messages that were kept of them.
--
-- KEYS[1] sorted set: cancelled ids, by the time when they may be forgotten
-- KEYS[2] hash: by whom and when
-- KEYS[3] hash: the shelf of what is cancelled   KEYS[4] sorted set: its index
-- KEYS[5] hash: tasks whose result is not REVOKED yet
-- ARGV[1], … ids
--
-- Returns the number of ids forgotten; one that was cancelled again meanwhile is not.

local now = tonumber(redis.call('TIME')[1])
local forgotten = 0
for _, id in ipairs(ARGV) do
  local score = redis.call('ZSCORE', KEYS[1], id)
  if score and tonumber(score) <= now then
    -- Further messages of one task have a number behind the id.
    local entry, same = id, 1
    while redis.call('HDEL', KEYS[3], entry) == 1 do
      redis.call('ZREM', KEYS[4], entry)
      entry = id .. ':' .. same
      same = same + 1
    end
    redis.call('HDEL', KEYS[5], id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('ZREM', KEYS[1], id)
    forgotten = forgotten + 1
  end
end
return forgotten
