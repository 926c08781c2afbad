-- The whole fleet at one moment: every record, what each holds, and how deep its queue is. Or only
-- the instances with the longest queues.
--
-- The keys of the instances follow from the members and are built here, from the patterns in ARGV.
--
-- KEYS[1] set: members
-- KEYS[2] sorted set: instances by how many wait in their own queues
-- ARGV[1] of how many instances with the longest queues; empty = all
-- ARGV[2] id of one that is there in any case, or empty
-- ARGV[3] key of a record, up to the id
-- ARGV[4] key of an in-flight hash, up to the id
-- ARGV[5] key of an own queue, up to the id
-- ARGV[6] key of the shared queue
-- ARGV[7..] what follows a queue's key for each priority
--
-- Returns {server time, depth of the shared queue, rows}; a row is one text, its fields joined by
-- the unit separator (\31): id, state, epoch, since, beat_at, beats, load, profile, ok, failed,
-- stopped, in flight, queued, identity, migrated_at, received_at, ejected_until, ejections,
-- ejected_why, sick, well, deaf, progress_at, cordoned, losses, flap_level, level_at, withheld_until,
-- withheld_why, verdict. An unset field is empty. One text, because a client reads a
-- thousand texts many times faster than fifteen thousand values.
--
-- With ARGV[1] whoever has no record or no queue any more is dropped from KEYS[2].

local function depth(key)
  local total = 0
  for i = 7, #ARGV do
    total = total + redis.call('LLEN', key .. ARGV[i])
  end
  return total
end

local time = redis.call('TIME')
local rows = {}
local ids
if ARGV[1] == '' then
  ids = redis.call('SMEMBERS', KEYS[1])
else
  ids = {ARGV[2]}
  local longest = ARGV[1] ~= '0' and redis.call('ZREVRANGE', KEYS[2], 0, ARGV[1] - 1) or {}
  for _, id in ipairs(longest) do
    if id ~= ARGV[2] then ids[#ids + 1] = id end
  end
end
for _, id in ipairs(ids) do
  local row = redis.call('HMGET', ARGV[3] .. id, 'state', 'epoch', 'since', 'beat_at', 'beats',
    'load', 'profile', 'ok', 'failed', 'stopped', 'identity', 'migrated_at',
    'received_at', 'ejected_until', 'ejections', 'ejected_why', 'sick', 'well', 'deaf',
    'progress_at', 'cordoned', 'losses', 'flap_level', 'level_at', 'withheld_until', 'withheld_why', 'verdict')
  if row[1] and row[2] then
    local epoch = row[2]
    for i = 27, 11, -1 do
      row[i + 2] = row[i]
    end
    row[11] = redis.call('HLEN', ARGV[4] .. id .. ':' .. epoch)
    row[12] = depth(ARGV[5] .. id)
    for i = 1, 29 do
      row[i] = row[i] or ''
    end
    if ARGV[1] ~= '' then
      -- Not all that move messages keep the set: it is put right where it is read.
      if row[12] == 0 then
        redis.call('ZREM', KEYS[2], id)
      else
        redis.call('ZADD', KEYS[2], row[12], id)
      end
    end
    rows[#rows + 1] = id .. '\31' .. table.concat(row, '\31')
  elseif ARGV[1] ~= '' then
    redis.call('ZREM', KEYS[2], id)
  end
end
return {time[1] .. '.' .. string.format('%06d', tonumber(time[2])), depth(ARGV[6]), rows}
