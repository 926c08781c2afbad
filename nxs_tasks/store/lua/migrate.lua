-- Move waiting messages of one own queue to another, both of one priority: one part of a migration.
--
-- A migration has a name. Its first part notes it in both records with the time, and its later parts
-- find it there; another one is refused until that is long enough ago.
--
-- The caller has read both lists and says in what order the messages are to be taken. What has been
-- taken meanwhile is passed over. If all is newer than what waits at the target, it is put behind it.
-- Else the end of the target's list, from which messages are taken, is written anew.
--
-- The records are written first: a server without memory refuses the first write of a script or none.
--
-- KEYS[1] hash: the source's record   KEYS[2] hash: the target's record
-- KEYS[3] list: from                  KEYS[4] list: to
-- ARGV[1] source's epoch   ARGV[2] its state   ARGV[3] target's epoch   ARGV[4] its state
-- ARGV[5] name of the migration   ARGV[6] seconds between two of one instance
-- ARGV[7] how many messages of the source were taken before the last of these when they were read
-- ARGV[8] the target's newest message, if these are to be put behind it, else empty
-- ARGV[9] else the target's oldest message that is newer than all of these, empty if there is none
-- ARGV[10], … pairs, what is to be taken first comes first: message as read from the source, message
--   to write; or an empty text, and a message that waits at the target's end
--
-- Returns {number moved, ''}; {-1, why} if the precondition does not hold; {-2, ''} if the end of the
-- target at which these go is not what the caller has read: others may have put messages there.

local SLACK = 200 -- others may have put so many in front since the lists were read

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))

local function refusal(key, who, epoch, state)
  local record = redis.call('HMGET', key, 'state', 'epoch', 'migration', 'migrated_at')
  if record[1] ~= state or record[2] ~= epoch then
    return 'the ' .. who .. ' is now ' .. (record[1] or 'none') .. ':' .. (record[2] or '0')
  end
  local since = tonumber(now) - tonumber(record[4] or '0')
  if record[3] ~= ARGV[5] and since < tonumber(ARGV[6]) then
    return 'the ' .. who .. ' took part in a migration ' .. math.floor(since) .. ' s ago'
  end
end

local why = refusal(KEYS[1], 'source', ARGV[1], ARGV[2])
  or refusal(KEYS[2], 'target', ARGV[3], ARGV[4])
if why then
  return {-1, why}
end
local behind = ARGV[8] ~= ''
if behind and redis.call('LINDEX', KEYS[4], 0) ~= ARGV[8] then
  return {-2, ''}
end

local here = {}
for _, text in ipairs(redis.call('LRANGE', KEYS[3], -tonumber(ARGV[7]) - SLACK, -1)) do
  here[text] = (here[text] or 0) + 1
end
-- Nobody keeps two messages from being the same, or empty.
local moving, takes, known, resident = {}, {}, {}, 0
for i = 10, #ARGV, 2 do
  if ARGV[i] == '' then
    known[ARGV[i + 1]] = (known[ARGV[i + 1]] or 0) + 1
    resident = resident + 1
  elseif (here[ARGV[i]] or 0) > 0 then
    here[ARGV[i]] = here[ARGV[i]] - 1
    moving[#moving + 1] = ARGV[i]
    takes[i] = true
  end
end
if #moving == 0 then
  return {0, ''}
end

local stays, rewritten = {}, 0
if not behind then
  -- Of the target's end, all from the newest message that the caller has put into the order.
  for _, text in ipairs(redis.call('LRANGE', KEYS[4], -resident - SLACK, -1)) do
    if (known[text] or 0) > 0 then
      known[text] = known[text] - 1
      stays[text] = (stays[text] or 0) + 1
      rewritten = rewritten + 1
    elseif rewritten > 0 then
      return {-2, ''}
    end
  end
  local last = redis.call('LINDEX', KEYS[4], -1)
  if rewritten == 0 and last and last ~= ARGV[9] then
    return {-2, ''}
  end
end

redis.call('HSET', KEYS[1], 'migration', ARGV[5], 'migrated_at', now)
redis.call('HSET', KEYS[2], 'migration', ARGV[5], 'migrated_at', now, 'received_at', now)

if behind then
  for i = 10, #ARGV, 2 do
    if takes[i] then
      redis.call('LPUSH', KEYS[4], ARGV[i + 1])
    end
  end
else
  if rewritten > 0 then
    redis.call('LTRIM', KEYS[4], 0, -rewritten - 1)
  end
  for i = #ARGV - 1, 10, -2 do
    local text = ARGV[i + 1]
    if takes[i] then
      redis.call('RPUSH', KEYS[4], text)
    elseif ARGV[i] == '' and (stays[text] or 0) > 0 then
      stays[text] = stays[text] - 1
      redis.call('RPUSH', KEYS[4], text)
    end
  end
end
for _, text in ipairs(moving) do
  redis.call('LREM', KEYS[3], -1, text)
end
return {#moving, ''}
