-- Take messages of cancelled tasks out of a queue, or off a shelf, and keep them aside.
--
-- Written first and removed afterwards, because a script that is refused memory is not undone. From
-- the middle of a long list LREM would walk all that is before it for each message. So they are
-- overwritten by their place, and removed in one walk.
--
-- KEYS[1] hash: the shelf for what is cancelled   KEYS[2] sorted set: its index
-- KEYS[3] hash: tasks whose result is not REVOKED yet, id to name
-- KEYS[4] list, or hash of the shelf: from   KEYS[5] sorted set: that shelf's index (only for one)
-- ARGV[1] a list: about how many messages are taken before the first   ARGV[2] … and from the first
--   up to the last; a shelf: 0
-- ARGV[3], … for each message five: the text in the list, or the entry's id; what to write before
--   the message; task id; name of the task, '' = its result is not told; key of the lock of its
--   unique_key, '' = it has none
--
-- Returns for each message 1, or 0 if it is not there any more.

local SLACK = 200 -- others may have taken, or given back, so many since the list was read
local GONE = '\0withdrawn'
local from, index = KEYS[4], KEYS[5]

local places = {}
if not index then
  local first = math.max(0, tonumber(ARGV[1]) - SLACK)
  local last = tonumber(ARGV[1]) + tonumber(ARGV[2]) + SLACK
  local window = redis.call('LRANGE', from, -last - 1, -first - 1)
  local passed = math.min(last, redis.call('LLEN', from) - 1)
  for i, text in ipairs(window) do
    places[text] = i - 2 - passed
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function keep(id, text, n)
  local entry, same = id, 1
  while redis.call('HEXISTS', KEYS[1], entry) == 1 do
    entry = id .. ':' .. same
    same = same + 1
  end
  redis.call('HSET', KEYS[1], entry, text)
  redis.call('ZADD', KEYS[2], string.format('%.6f', now + n / 1e6), entry)
end

local answer, removed = {}, 0
for i = 3, #ARGV, 5 do
  local what, about, id, told, lock = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local message = what
  if index then
    local entry = redis.call('HGET', from, what)
    message = entry and string.sub(entry, (string.find(entry, '\n', 1, true) or 0) + 1)
  elseif not places[what] then
    message = nil
  end
  if message then
    keep(id, about .. message, #answer)
    if told ~= '' then
      redis.call('HSET', KEYS[3], id, told)
    end
    local owner = lock ~= '' and redis.call('GET', lock)
    if owner and string.match(owner, '^[^\n]*') == id then
      redis.call('DEL', lock)
    end
    if index then
      redis.call('HDEL', from, what)
      redis.call('ZREM', index, what)
    else
      redis.call('LSET', from, places[what], GONE)
      places[what] = nil
      removed = removed + 1
    end
  end
  answer[#answer + 1] = message and 1 or 0
end
if removed > 0 then
  redis.call('LREM', from, -removed, GONE)
end
return answer
