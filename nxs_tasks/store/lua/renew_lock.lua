-- Renew a lock, if it still is its owner's: nobody else has it, and the owner has not lost it.
--
-- KEYS[1] hash: the lock
-- ARGV[1] owner
-- ARGV[2] ms for which it is held outside of tasks   ARGV[3] ms for which a lock nobody holds is known
--
-- Returns 1, or 0 if the lock is no longer its.

local function has_place(record, epoch)
  local found = redis.call('HMGET', record, 'epoch', 'state')
  return found[1] == epoch and found[2] ~= 'GONE' and found[2] ~= 'FAILED'
end

local lock = redis.call('HMGET', KEYS[1], 'owner', 'token', 'inflight', 'until', 'record', 'epoch')
if lock[1] ~= ARGV[1] then
  return 0
end
if lock[2] ~= '' then
  return redis.call('HEXISTS', lock[3], lock[2])
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if tonumber(lock[4]) <= now or (lock[6] and not has_place(lock[5], lock[6])) then
  return 0
end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) + tonumber(ARGV[3]))
return 1
