-- Take or renew a lease. A new holder gets a new term; a renewal keeps it.
--
-- KEYS[1] string with TTL: the holder
-- KEYS[2] counter: the term
-- ARGV[1] who asks   ARGV[2] TTL, ms
--
-- Returns {1, term} for the holder, {0, term} for everybody else.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {0, tonumber(redis.call('GET', KEYS[2]) or '0')}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not holder then
  return {1, redis.call('INCR', KEYS[2])}
end
return {1, tonumber(redis.call('GET', KEYS[2]) or '0')}
