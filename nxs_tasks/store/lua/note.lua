-- Keep the last verdict of the state machine beside the record it was made on.
--
-- KEYS[1] hash: the instance's record
-- ARGV[1] epoch   ARGV[2] state   ARGV[3] verdict
--
-- Returns 1, or 0 if state or epoch changed meanwhile.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'verdict', ARGV[3])
return 1
