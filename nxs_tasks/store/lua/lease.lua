-- Take or renew the lead of the beats of an app, or stand by. A new holder gets a new term; a renewal
-- keeps it.
--
-- KEYS[1] string with TTL: who leads
-- KEYS[2] counter: the term
-- KEYS[3] hash: since when the one of this term leads, when it has renewed, when it has resigned
-- KEYS[4] sorted set: every beat of the app by when it asked last
-- KEYS[5] set: apps that have beats
-- ARGV[1] who asks   ARGV[2] TTL, ms   ARGV[3] app   ARGV[4] s after which a beat that is silent is
--   forgotten
--
-- Returns {1 for the holder and 0 for everybody else, term, time of this server in µs, ms for which
-- the lease lasts}.

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local micro = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[4], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. (tonumber(time[1]) - tonumber(ARGV[4])))
redis.call('SADD', KEYS[5], ARGV[3])
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {0, tonumber(redis.call('GET', KEYS[2]) or '0'), micro, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local term
if holder then
  term = tonumber(redis.call('GET', KEYS[2]) or '0')
else
  term = redis.call('INCR', KEYS[2])
  redis.call('HDEL', KEYS[3], 'resigned')
  redis.call('HSET', KEYS[3], 'holder', ARGV[1], 'since', now)
end
redis.call('HSET', KEYS[3], 'renewed', now)
return {1, term, micro, tonumber(ARGV[2])}
