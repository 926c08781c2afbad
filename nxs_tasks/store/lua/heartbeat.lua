-- One heartbeat: load, consecutive beats, and outcomes in hourly buckets, in one write.
--
-- Outcomes come as totals since the process started, and only their growth is added: a heartbeat
-- that is sent again after a lost answer counts nothing twice.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] hash: the instance's outcomes, fields `<hour>:ok`, `<hour>:failed`, and the totals
--         counted so far (epoch, ok, failed)
-- KEYS[3] sorted set: instances by how many wait in their own queues
-- ARGV[1] epoch           ARGV[2] longest gap that still counts as consecutive, s
-- ARGV[3] load JSON       ARGV[4] window of the outcomes, hours
-- ARGV[5] succeeded in all   ARGV[6] failed in all   ARGV[7] "1" if this is the last heartbeat
-- ARGV[8] instance id   ARGV[9] how many wait in its own queue, empty if unknown
-- ARGV[10] "1" if it tells of something unhealthy   ARGV[11] progress of a process not yet ready
-- ARGV[12] "1" if its consumer takes no work   ARGV[13] token of what waits there for room
--
-- Returns {1, state, consecutive beats, who has cordoned it and why, who drains it and why}, or
-- {0, current epoch} if the epoch is no longer this one.

local record = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'beat_at', 'beats', 'hour', 'ok',
  'failed', 'stopped', 'sick', 'well', 'progress',
  'deaf', 'cordoned', 'drain')
if record[1] ~= ARGV[1] then
  return {0, record[1] or ''}
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local hour = math.floor(tonumber(time[1]) / 3600)
local beats = 1
if record[3] and tonumber(now) - tonumber(record[3]) <= tonumber(ARGV[2]) then
  beats = tonumber(record[4] or '0') + 1
end

local sick, well, deaf = 0, 0, 0
if ARGV[10] == '1' then
  sick = beats > 1 and tonumber(record[9] or '0') + 1 or 1
else
  well = beats > 1 and tonumber(record[10] or '0') + 1 or 1
end

if ARGV[12] == '1' then
  deaf = beats > 1 and tonumber(record[12] or '0') + 1 or 1
end

-- The totals already counted lie beside the counts, so that they are lost together or not at all.
-- A total may fall: a task that was acknowledged early counted as a success until it failed.
local counted = redis.call('HMGET', KEYS[2], 'epoch', 'ok', 'failed')
local same = counted[1] == ARGV[1]
local ok_growth = tonumber(ARGV[5]) - (same and tonumber(counted[2]) or 0)
local failed_growth = tonumber(ARGV[6]) - (same and tonumber(counted[3]) or 0)
local ok = tonumber(record[6] or '0') + ok_growth
local failed = tonumber(record[7] or '0') + failed_growth
if ok_growth ~= 0 then redis.call('HINCRBY', KEYS[2], hour .. ':ok', ok_growth) end
if failed_growth ~= 0 then redis.call('HINCRBY', KEYS[2], hour .. ':failed', failed_growth) end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'ok', ARGV[5], 'failed', ARGV[6])

if tonumber(record[5] or '0') ~= hour then
  -- A new hour: drop what left the window, and add up what is in it.
  ok, failed = 0, 0
  local all = redis.call('HGETALL', KEYS[2])
  for i = 1, #all, 2 do
    local at, kind = string.match(all[i], '^(%d+):(%a+)$')
    if at and tonumber(at) <= hour - tonumber(ARGV[4]) then
      redis.call('HDEL', KEYS[2], all[i])
    elseif kind == 'ok' then
      ok = ok + tonumber(all[i + 1])
    elseif kind == 'failed' then
      failed = failed + tonumber(all[i + 1])
    end
  end
end

-- Once said, "finished" stays: an earlier heartbeat may arrive after the last one.
local stopped = record[8] == '1' and '1' or ARGV[7]
redis.call('HSET', KEYS[1], 'beat_at', now, 'beats', beats, 'load', ARGV[3], 'hour', hour,
  'ok', math.max(0, ok), 'failed', math.max(0, failed), 'stopped', stopped, 'sick', sick,
  'well', well, 'deaf', deaf)
if ARGV[13] == '' then
  redis.call('HDEL', KEYS[1], 'kept')
else
  redis.call('HSET', KEYS[1], 'kept', ARGV[13])
end
if ARGV[11] ~= (record[11] or '') then
  redis.call('HSET', KEYS[1], 'progress', ARGV[11], 'progress_at', now)
end
if tonumber(ARGV[9]) and tonumber(ARGV[9]) > 0 then
  redis.call('ZADD', KEYS[3], ARGV[9], ARGV[8])
end
return {1, record[2], beats, record[13] or '', record[14] or ''}
