-- Take the next message and note who holds it, in one step: at no moment is it nowhere.
--
-- kombu pops first and registers afterwards; a process that is killed in between loses the message.
-- The message is registered before it is removed, because a script that is refused memory half-way
-- is not undone.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] hash: in flight   KEYS[3] sorted set: in flight, by time
-- KEYS[4] set: paused queues   KEYS[5] set: cancelled tasks' ids   KEYS[6] set: paused tasks
-- KEYS[7] sorted set: delayed, by due time   KEYS[8] hash: delayed entries
-- KEYS[9] sorted set: instances by how many wait in their own queues
-- KEYS[10] set: all instances
-- KEYS[11], KEYS[12], … lists, in the order in which to look; those of other instances come last
-- ARGV[1] epoch   ARGV[2] token of this delivery   ARGV[3] most delayed messages to move
-- ARGV[4] affinity keys that are warm here, a JSON array of them as they stand in a message
-- ARGV[5] for so long, s, the oldest message may be passed over for one whose key is warm, if it
--   says when it was placed
-- ARGV[6] how many of the lists belong to other instances   ARGV[7] names of the tasks that may be
--   taken from these, a JSON array; empty = all
-- ARGV[8] instance id
-- ARGV[9] 0, or how many slots this instance has, if all are taken and it takes one ahead
-- ARGV[10], ARGV[11], … for each list two: the queue it belongs to, the name it is paused by (of an
--   own queue another name)
--
-- What is due among the delayed is appended to its list first. An entry that cannot be read, or has
-- a list that is none, goes to the shelf for quarantine: it must not stop everybody's work.
--
-- From other instances' lists only what a submitter of the fleet has placed is taken, not what its
-- sender has put there; and what wants a warm cache only if it is warm here too, or it is too old.
--
-- An instance that is ejected, withheld, cordoned or leaves gets nothing.
--
-- What is taken ahead could start elsewhere, unless it is in an own queue. So it is taken only where
-- there is more than every slot of the fleet could start, if all instances have as many: none will
-- be idle before it starts. Nothing else is taken then either, or the less urgent would go first.
--
-- Returns {1, queue, message, above 0 if some task is cancelled or paused, now (s)} · {0, ms until
-- something delayed is due or it is let in again, -1 if nothing is} · {-1, epoch as found} if the process has lost its
-- place.
--
-- A caller with CLIENT TRACKING on is told when any of the lists, or another reason to look again,
-- changes: the reads below are what it tracks.

local LOOK = 16 -- so many of the oldest messages are looked at, where one may be chosen
local FIRST = 11 -- index of the first list

local record = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'ejected_until', 'withheld_until',
  'cordoned')
if record[1] ~= ARGV[1] or record[2] == 'GONE' or record[2] == 'FAILED' then
  return {-1, record[1] or ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local kept_out = math.max(tonumber(record[3] or 0), tonumber(record[4] or 0)) - now
if kept_out > 0 then
  return {0, math.ceil(kept_out * 1000)}
end
if record[2] == 'LEAVING' or (record[5] and record[5] ~= '') then
  return {0, -1}
end
local is_list = {list = true, none = true}
local due = redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  local entry = redis.call('HGET', KEYS[8], id)
  if entry then
    local line = string.find(entry, '\n', 1, true) or 0
    local readable, about = pcall(cjson.decode, string.sub(entry, 1, line - 1))
    local list = line > 0 and readable and type(about) == 'table' and about.list
    if type(list) == 'string' and is_list[redis.call('TYPE', list).ok] then
      redis.call('LPUSH', list, string.sub(entry, line + 1))
    else
      redis.call('HSET', (string.gsub(KEYS[8], 'delayed$', 'quarantine')), id, entry)
      redis.call('ZADD', (string.gsub(KEYS[7], 'delayed$', 'quarantine')), now, id)
    end
    redis.call('HDEL', KEYS[8], id)
  end
  redis.call('ZREM', KEYS[7], id)
end

local warm = ARGV[4] ~= '' and cjson.decode(ARGV[4]) or {}
local longest = tonumber(ARGV[5])

-- Whether it has waited too long to be passed over. Of what no submitter of the fleet has placed
-- nobody knows since when it waits, and it would be passed over again and again.
local function is_overdue(message)
  local at = tonumber(string.match(message, '"nxs": {.-"at": ([%d.]+)') or '')
  -- Of a clock that is ahead neither: it would be passed over until then.
  return not at or at > now + 1 or now - at > longest
end

local function is_warm(message)
  for _, key in ipairs(warm) do
    if string.find(message, '"key": ' .. key, 1, true) then
      return true
    end
  end
  return false
end

-- The oldest, or one behind it whose key is warm here.
local function next_of(list)
  local oldest = redis.call('LINDEX', list, -1)
  if not oldest or #warm == 0 or is_overdue(oldest) then
    return oldest
  end
  local some = redis.call('LRANGE', list, -LOOK, -1)
  for n = #some, 1, -1 do
    if is_warm(some[n]) then
      return some[n]
    end
  end
  return oldest
end

-- The oldest of another instance's list that may be taken from it.
local names
local function next_of_another(list)
  if not names then
    names = {}
    for _, name in ipairs(ARGV[7] ~= '' and cjson.decode(ARGV[7]) or {}) do
      names[name] = true
    end
  end
  local some = redis.call('LRANGE', list, -LOOK, -1)
  for n = #some, 1, -1 do
    local message = some[n]
    local placed = string.find(message, '"nxs": {', 1, true)
    local wants = placed and string.find(message, '"key": ', placed, true)
    local known = ARGV[7] == '' or names[string.match(message, '"task": "([^"]*)"') or '']
    if placed and known and (not wants or is_warm(message) or is_overdue(message)) then
      return message
    end
  end
end

local function is_own(i)
  return i <= #KEYS - ARGV[6] and ARGV[2 * i - 12] ~= ARGV[2 * i - 11]
end

local ahead = tonumber(ARGV[9])
local function is_scarce(i)
  return ahead > 0 and not is_own(i)
    and redis.call('LLEN', KEYS[i]) <= ahead * redis.call('SCARD', KEYS[10])
end

local function note_own_line()
  local waiting = 0
  for i = FIRST, #KEYS do
    if is_own(i) then waiting = waiting + redis.call('LLEN', KEYS[i]) end
  end
  if waiting > 0 then
    redis.call('ZADD', KEYS[9], waiting, ARGV[8])
  else
    redis.call('ZREM', KEYS[9], ARGV[8])
  end
end

for i = FIRST, #KEYS do
  local queue, paused_by = ARGV[2 * i - 12], ARGV[2 * i - 11]
  local foreign = i > #KEYS - ARGV[6]
  local message
  if foreign then
    message = next_of_another(KEYS[i])
  elseif is_own(i) then
    message = redis.call('LINDEX', KEYS[i], -1)
  else
    message = next_of(KEYS[i])
  end
  if message and redis.call('SISMEMBER', KEYS[4], paused_by) == 0 then
    if is_scarce(i) then return {0, -1} end
    redis.call('HSET', KEYS[2], ARGV[2], '[' .. message .. ', "", ' .. cjson.encode(queue) .. ']')
    redis.call('ZADD', KEYS[3], now, ARGV[2])
    if ahead > 0 then
      -- Whoever gives it back when its holder has died does not count that against it.
      redis.call('HSET', KEYS[1], 'ahead', ARGV[2])
    end
    redis.call('LREM', KEYS[i], -1, message)
    if is_own(i) then note_own_line() end
    return {1, queue, message, redis.call('EXISTS', KEYS[5], KEYS[6]), string.format('%.6f', now)}
  end
end

redis.call('EXISTS', KEYS[4])
local first = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
return {0, first[2] and math.max(0, math.ceil((tonumber(first[2]) - now) * 1000)) or -1}
