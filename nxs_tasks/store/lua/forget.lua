-- Remove the record of an instance that ended; its epoch and its outcomes outlive it.
--
-- KEYS[1] set: members
-- KEYS[2] hash: the instance's record
-- KEYS[3] hash: the instance's outcomes
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] state   ARGV[4] seconds to keep the outcomes
--
-- Returns 1, or 0 if state or epoch changed meanwhile.

local record = redis.call('HMGET', KEYS[2], 'state', 'epoch')
if record[1] ~= ARGV[3] or record[2] ~= ARGV[2] then
  return 0
end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
