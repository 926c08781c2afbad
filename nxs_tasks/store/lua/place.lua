-- Append messages to queues, once, as publish.lua does; what is meant for a free slot only while
-- there is one.
--
-- Several submitters may have seen the same free slot. Who comes too late goes to the shared queue,
-- where the first free slot takes it, and is not to wait behind a running task.
--
-- KEYS[1] string with TTL: number of the producer's last accepted write
-- KEYS[2] sorted set: instances by how many wait in their own queues
-- KEYS[3], KEYS[4], … pairs: list, and the list for what finds no room there (any list if there is
--   always room)
-- ARGV[1] number of this write   ARGV[2] seconds for which a repetition is known
-- ARGV[3], … for each pair: how many messages, how many parts its room has (0 = there is always
--   room), these parts, then the messages, first to be taken first. The parts: instance id, key of
--   its record, epoch, key of its in-flight hash, how many slots it may fill (empty = any number),
--   how many each of these messages takes, the name of its queue and that of the other one as they
--   stand in a message, and the key of each of its lists
--
-- What is held or waits already counts as one slot each.
--
-- Returns 1 and one for each message that went to the other list; 0 if this write had been accepted
-- before. Fails before anything is written if one of the keys is of the wrong kind.

local CHUNK = 1000 -- Lua's stack holds no more than a few thousand values
local TAIL = 1024 -- where a message says its queue: near its end
local PLACEABLE = {ACTIVE = true, DEGRADED = true}

local function push(list, from, last)
  while from <= last do
    local upto = math.min(from + CHUNK - 1, last)
    redis.call('LPUSH', list, unpack(ARGV, from, upto))
    from = upto + 1
  end
end

local function waiting(at, parts)
  local total = 0
  for i = at + 8, at + parts - 1 do
    total = total + redis.call('LLEN', ARGV[i])
  end
  return total
end

local function room(at, parts, count)
  local limit = tonumber(ARGV[at + 4])
  if not limit then
    return count
  end
  local record = redis.call('HMGET', ARGV[at + 1], 'epoch', 'state', 'ejected_until', 'cordoned',
    'withheld_until')
  local now = tonumber(redis.call('TIME')[1])
  if record[1] ~= ARGV[at + 2] or not PLACEABLE[record[2]] or tonumber(record[3] or '0') > now
    or (record[4] or '') ~= '' or tonumber(record[5] or '0') > now then
    return 0
  end
  local taken = redis.call('HLEN', ARGV[at + 3]) + waiting(at, parts)
  return math.min(count, math.max(0, math.floor((limit - taken) / tonumber(ARGV[at + 5]))))
end

local function readdress(message, from, to)
  local first, last
  local found, ends = string.find(message, from, math.max(1, #message - TAIL), true)
  while found do
    first, last = found, ends
    found, ends = string.find(message, from, ends + 1, true)
  end
  if not first then
    return message
  end
  return string.sub(message, 1, first - 1) .. to .. string.sub(message, last + 1)
end

if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
local function wrong(key, wanted)
  local kind = redis.call('TYPE', key).ok
  return kind ~= 'none' and kind ~= wanted
    and redis.error_reply('WRONGTYPE ' .. key .. ' is no ' .. wanted)
end

-- All is read before anything is written: half a write could neither be repeated nor left.
local fault = wrong(KEYS[2], 'zset')
for i = 3, #KEYS do
  fault = fault or wrong(KEYS[i], 'list')
end
if fault then
  return fault
end
local here, at = {}, 3
for i = 3, #KEYS, 2 do
  local count, parts = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  here[i] = parts > 0 and room(at + 2, parts, count) or count
  at = at + 2 + parts + count
end

local late
at, late = 3, 0
for i = 3, #KEYS, 2 do
  local count, parts = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local first = at + 2 + parts
  push(KEYS[i], first, first + here[i] - 1)
  if parts > 0 and here[i] > 0 then
    redis.call('ZADD', KEYS[2], waiting(at + 2, parts), ARGV[at + 2])
  end
  for n = first + here[i], first + count - 1 do
    redis.call('LPUSH', KEYS[i + 1], readdress(ARGV[n], ARGV[at + 8], ARGV[at + 9]))
    late = late + 1
  end
  at = first + count
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1 + late
