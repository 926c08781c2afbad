-- Append messages to queues, once: the same write sent again changes nothing.
--
-- A producer numbers its writes, and sends the next one when it knows what became of the last, or
-- goes on under another name. So one number for each producer is enough to know a repetition.
--
-- KEYS[1] string with TTL: number of the producer's last accepted write
-- KEYS[2], KEYS[3], … lists
-- ARGV[1] number of this write   ARGV[2] seconds for which a repetition is known
-- ARGV[3], … for each list: how many messages, then the messages, first to be taken first
--
-- Returns 1, or 0 if this write had been accepted before. Fails before anything is written if one of
-- several keys is no list: half a write could neither be repeated nor left.

local CHUNK = 1000 -- Lua's stack holds no more than a few thousand values

if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
for i = 2, #KEYS > 2 and #KEYS or 0 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= 'list' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is no list')
  end
end
local at = 3
for i = 2, #KEYS do
  local last = at + tonumber(ARGV[at])
  at = at + 1
  while at <= last do
    local upto = math.min(at + CHUNK - 1, last)
    redis.call('LPUSH', KEYS[i], unpack(ARGV, at, upto))
    at = upto + 1
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
