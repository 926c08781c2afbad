-- A process takes a node name: new epoch, fresh record, both transitions recorded.
--
-- KEYS[1] set: members
-- KEYS[2] hash: the instance's record
-- KEYS[3] hash: epochs by instance id
-- KEYS[4] hash: profiles by digest
-- KEYS[5] stream: transitions
-- KEYS[6] hash: the instance's outcomes
-- KEYS[7] set: processes that may hold messages
-- KEYS[8] sorted set: ejected instances by until when
-- ARGV[1] instance id          ARGV[2] epoch that the caller saw last (0 = none)
-- ARGV[3] identity (host, pid) ARGV[4] profile digest   ARGV[5] profile JSON
-- ARGV[6] longest stream        ARGV[7] epoch to take at least (0 = the next one)
-- ARGV[8] for so long, s, one that FAILED may not join again
--
-- A living process announces itself again with an epoch as ARGV[7]: its own, if it was taken for a
-- ZOMBIE and what it holds is still its own; the next one, if its record was lost or it was given up.
-- If it was given up since it looked, it gets the next one here.
--
-- Returns {1, epoch} · {0, its epoch} if another process has taken the name meanwhile ·
-- {-1, seconds} for which it may not join yet.

local KEPT = 8 -- losses that are remembered

local function with_one_more(known, at)
  local losses = (known and known ~= '' and known .. ',' or '') .. at
  local _, commas = string.gsub(losses, ',', '')
  return commas < KEPT and losses or (string.gsub(losses, '^[^,]*,', ''))
end

local id, seen = ARGV[1], tonumber(ARGV[2])
local epoch = tonumber(redis.call('HGET', KEYS[3], id) or '0')
if epoch ~= seen then
  -- Our own first try may have arrived although its answer was lost.
  local ours = redis.call('HGET', KEYS[2], 'identity') == ARGV[3]
  return {ours and 1 or 0, epoch}
end

local wanted = tonumber(ARGV[7])
local record_of = redis.call('HGET', KEYS[2], 'identity')
if wanted > 0 and (epoch > wanted or (epoch == wanted and record_of ~= ARGV[3])) then
  return {0, epoch}
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local found = redis.call('HMGET', KEYS[2], 'state', 'since')
local before = found[1]
local refused = before == 'FAILED' and tonumber(found[2]) + tonumber(ARGV[8]) - tonumber(now) or 0
if refused > 0 then
  return {-1, string.format('%.1f', refused)}
end
local function record(source, target, event, reason, of_epoch)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'at', now, 'instance', id,
    'epoch', tostring(of_epoch), 'source', source, 'target', target, 'event', event,
    'reason', reason, 'evidence', '{"identity":' .. cjson.encode(ARGV[3]) .. '}')
end

local previous, ended = epoch, before == 'GONE' or before == 'FAILED'
epoch = wanted > 0 and math.max(wanted, epoch) or epoch + 1
if ended and epoch == previous then
  epoch = epoch + 1
end
local source = before or ''
if (before == 'ACTIVE' or before == 'DEGRADED') and epoch ~= previous then
  redis.call('HSET', KEYS[2], 'losses', with_one_more(redis.call('HGET', KEYS[2], 'losses'), now))
end
if before and not ended and epoch ~= previous then
  record(before, 'GONE', 'replaced', 'a new process took the name', previous)
  source = 'GONE'
end
record(source, 'JOINING', 'joined', 'announced itself', epoch)

redis.call('HSET', KEYS[3], id, epoch)
redis.call('HSET', KEYS[4], ARGV[4], ARGV[5])
redis.call('SADD', KEYS[1], id)
redis.call('SADD', KEYS[7], id .. ':' .. epoch)
redis.call('PERSIST', KEYS[6])
if wanted > 0 and redis.call('HGET', KEYS[6], 'epoch') == tostring(previous) then
  -- The same process goes on, and its totals with it.
  redis.call('HSET', KEYS[6], 'epoch', epoch)
end
redis.call('HDEL', KEYS[2], 'beat_at', 'beats', 'load', 'stopped', 'verdict', 'sick', 'well',
  'deaf', 'progress', 'progress_at')
if epoch ~= previous then
  redis.call('HDEL', KEYS[2], 'ejected_until', 'ejections', 'ejected_why', 'migration',
    'migrated_at', 'received_at')
  redis.call('ZREM', KEYS[8], id)
  -- A drain ends with the process that it drained; what a person has cordoned stays cordoned.
  local cordon = redis.call('HMGET', KEYS[2], 'cordoned', 'drain')
  if cordon[2] and cordon[1] == cordon[2] then
    redis.call('HDEL', KEYS[2], 'cordoned')
  end
  redis.call('HDEL', KEYS[2], 'drain')
end
redis.call('HSET', KEYS[2], 'state', 'JOINING', 'epoch', epoch, 'since', now,
  'identity', ARGV[3], 'profile', ARGV[4])
return {1, epoch}
