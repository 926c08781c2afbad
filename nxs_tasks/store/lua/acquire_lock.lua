-- Take a lock, if it is free: never held, given up, or its holder is no more.
--
-- A task holds by its message: as long as that lies in the in-flight hash of the process that took
-- it. Everybody else holds for a time, and renews; who is part of a worker also no longer than that
-- has its place in the fleet.
--
-- KEYS[1] hash: the lock   KEYS[2] hash: in flight, of the process of the task that asks
-- KEYS[3] hash: the record of the worker of which who asks is part (any if it is not)
-- ARGV[1] who asks   ARGV[2] token of its task, empty outside of tasks
-- ARGV[3] ms for which it is held outside of tasks   ARGV[4] ms for which a lock nobody holds is known
-- ARGV[5] epoch of that worker, empty if it is none
--
-- The number of the holding is the time in ms, but always above the last one: it rises also when
-- the lock was forgotten meanwhile, or the server has lost its data.
--
-- Returns {1, number of the holding} · {0, 0} if another holds it · {-1, 0} if the task that asks
-- has lost its message.

local function has_place(record, epoch)
  local found = redis.call('HMGET', record, 'epoch', 'state')
  return found[1] == epoch and found[2] ~= 'GONE' and found[2] ~= 'FAILED'
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[2] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then
  return {-1, 0}
end
local lock = redis.call('HMGET', KEYS[1], 'owner', 'token', 'inflight', 'until', 'number', 'record',
  'epoch')
local held = false
if lock[1] then
  if lock[2] ~= '' then
    held = redis.call('HEXISTS', lock[3], lock[2]) == 1
  else
    held = tonumber(lock[4]) > now and (not lock[7] or has_place(lock[6], lock[7]))
  end
end
if held then
  -- The owner's own first try may have arrived although its answer was lost.
  local ours = lock[1] == ARGV[1]
  return {ours and 1 or 0, ours and tonumber(lock[5]) or 0}
end
local number = math.max(tonumber(lock[5] or '0') + 1, now)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', ARGV[2], 'inflight', KEYS[2],
  'since', string.format('%.0f', now),
  'until', string.format('%.0f', now + tonumber(ARGV[3])), 'number', string.format('%.0f', number))
redis.call('HDEL', KEYS[1], 'record', 'epoch')
if ARGV[2] ~= '' then
  redis.call('PERSIST', KEYS[1])
  return {1, number}
end
local epoch = ARGV[5] or ''
if epoch ~= '' and has_place(KEYS[3], epoch) then
  redis.call('HSET', KEYS[1], 'record', KEYS[3], 'epoch', epoch)
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + tonumber(ARGV[4]))
return {1, number}
