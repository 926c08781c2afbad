-- The whole fleet at one moment: every record, what each holds, and how deep its queue is.
--
-- The keys of the instances follow from the members and are built here, from the patterns in ARGV.
--
-- KEYS[1] set: members
-- ARGV[1] key of a record, up to the id
-- ARGV[2] key of an in-flight hash, up to the id
-- ARGV[3] key of an own queue, up to the id
-- ARGV[4] key of the shared queue
-- ARGV[5..] what follows a queue's key for each priority
--
-- Returns {server time, depth of the shared queue, rows}; a row is one text, its fields joined by
-- the unit separator (\31): id, state, epoch, since, beat_at, beats, load, profile, ok, failed,
-- stopped, in flight, queued, identity, migrated_at, received_at, verdict. An unset field is empty.
-- One text, because a client reads a thousand texts many times faster than fifteen thousand values.

local function depth(key)
  local total = 0
  for i = 5, #ARGV do
    total = total + redis.call('LLEN', key .. ARGV[i])
  end
  return total
end

local time = redis.call('TIME')
local rows = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local row = redis.call('HMGET', ARGV[1] .. id, 'state', 'epoch', 'since', 'beat_at', 'beats',
    'load', 'profile', 'ok', 'failed', 'stopped', 'identity', 'migrated_at',
    'received_at', 'verdict')
  if row[1] and row[2] then
    local epoch = row[2]
    row[13], row[14], row[15], row[16] = row[11], row[12], row[13], row[14]
    row[11] = redis.call('HLEN', ARGV[2] .. id .. ':' .. epoch)
    row[12] = depth(ARGV[3] .. id)
    for i = 1, 16 do
      row[i] = row[i] or ''
    end
    rows[#rows + 1] = id .. '\31' .. table.concat(row, '\31')
  end
end
return {time[1] .. '.' .. string.format('%06d', tonumber(time[2])), depth(ARGV[4]), rows}
