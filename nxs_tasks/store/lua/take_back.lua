-- Do not want a running task moved any more, unless it has stopped for it already.
--
-- KEYS[1] hash: the checkpoint
--
-- Returns 1, or 0 if nobody had asked, or it is too late.

local known = redis.call('HMGET', KEYS[1], 'move_to', 'stopped', 'inflight')
if not known[1] then
  return 0
end
if known[2] and known[3] and redis.call('HEXISTS', known[3], known[2]) == 1 then
  return 0
end
redis.call('HDEL', KEYS[1], 'move_to', 'move_of', 'move_by', 'move_at', 'stopped')
return 1
