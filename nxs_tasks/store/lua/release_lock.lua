-- Give a lock up, if it still is its owner's: nobody else has it, and the owner has not lost it.
--
-- Its number stays for a while, so that the next one is above it.
--
-- KEYS[1] hash: the lock
-- ARGV[1] owner   ARGV[2] ms for which a lock nobody holds is known
--
-- Returns 1, or 0 if the lock is no longer its.

local function has_place(record, epoch)
  local found = redis.call('HMGET', record, 'epoch', 'state')
  return found[1] == epoch and found[2] ~= 'GONE' and found[2] ~= 'FAILED'
end

local lock = redis.call('HMGET', KEYS[1], 'owner', 'token', 'inflight', 'until', 'given_up_by',
  'record', 'epoch')
if lock[1] ~= ARGV[1] then
  -- Its own first try may have arrived although its answer was lost.
  return lock[5] == ARGV[1] and 1 or 0
end
local held
if lock[2] ~= '' then
  held = redis.call('HEXISTS', lock[3], lock[2]) == 1
else
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  held = tonumber(lock[4]) > now and (not lock[7] or has_place(lock[6], lock[7]))
end
redis.call('HDEL', KEYS[1], 'owner', 'token', 'inflight', 'since', 'until', 'record', 'epoch')
if held then
  redis.call('HSET', KEYS[1], 'given_up_by', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return held and 1 or 0
