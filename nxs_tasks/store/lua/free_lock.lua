-- Free a lock that a process held outside of its tasks, and that is no more.
--
-- Its number stays for a while, so that the next one is above it.
--
-- KEYS[1] hash: the lock
-- ARGV[1] what the owners of that process begin with   ARGV[2] ms for which a lock nobody holds is known
--
-- Returns 1, or 0 if it is not held by that process in this way.

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  return 0
end
local lock = redis.call('HMGET', KEYS[1], 'owner', 'token')
if not lock[1] or lock[2] ~= '' or string.sub(lock[1], 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'owner', 'token', 'inflight', 'until')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
