-- Take the next message and note who holds it, in one step: at no moment is it nowhere.
--
-- kombu pops first and registers afterwards; a process that is killed in between loses the message.
-- The message is registered before it is popped, because a script that is refused memory half-way
-- is not undone.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] hash: in flight   KEYS[3] sorted set: in flight, by time
-- KEYS[4] set: paused queues   KEYS[5] set: cancelled tasks' ids   KEYS[6] set: paused tasks
-- KEYS[7] sorted set: delayed, by due time   KEYS[8] hash: delayed entries
-- KEYS[9], KEYS[10], … lists, in the order in which to look
-- ARGV[1] epoch   ARGV[2] token of this delivery   ARGV[3] most delayed messages to move
-- ARGV[4], ARGV[5], … for each list two: the queue it belongs to, the name it is paused by
--
-- What is due among the delayed is appended to its list first. An entry that cannot be read, or has
-- a list that is none, goes to the shelf for quarantine: it must not stop everybody's work.
--
-- Returns {1, queue, message, above 0 if some task is cancelled or paused, now (s)} · {0, ms until
-- something delayed is due, -1 if nothing is} · {-1, epoch as found} if the process has lost its
-- place.
--
-- A caller with CLIENT TRACKING on is told when any of the lists, or another reason to look again,
-- changes: the reads below are what it tracks.

local record = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if record[1] ~= ARGV[1] or record[2] == 'GONE' or record[2] == 'FAILED' then
  return {-1, record[1] or ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
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

for i = 9, #KEYS do
  local queue, paused_by = ARGV[2 * i - 14], ARGV[2 * i - 13]
  local message = redis.call('LINDEX', KEYS[i], -1)
  if message and redis.call('SISMEMBER', KEYS[4], paused_by) == 0 then
    redis.call('HSET', KEYS[2], ARGV[2], '[' .. message .. ', "", ' .. cjson.encode(queue) .. ']')
    redis.call('ZADD', KEYS[3], now, ARGV[2])
    redis.call('RPOP', KEYS[i])
    return {1, queue, message, redis.call('EXISTS', KEYS[5], KEYS[6]), string.format('%.6f', now)}
  end
end

redis.call('EXISTS', KEYS[4])
local first = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
return {0, first[2] and math.max(0, math.ceil((tonumber(first[2]) - now) * 1000)) or -1}
