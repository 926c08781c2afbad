-- Count how tasks ended, by name, for the fleet and for one instance; kept for some minutes.
--
-- Only to compare instances with each other: a report that is sent again counts twice.
--
-- KEYS[1] what the key of a minute of the fleet begins with   KEYS[2] the same for the instance
-- ARGV[1] seconds for which a minute is kept
-- ARGV[2], ARGV[3], … for each name three: the name, how many succeeded, how many failed
--
-- Returns nothing.

local minute = math.floor(tonumber(redis.call('TIME')[1]) / 60)
for k = 1, 2 do
  local key = KEYS[k] .. minute
  for i = 2, #ARGV, 3 do
    redis.call('HINCRBY', key, 'ok:' .. ARGV[i], ARGV[i + 1])
    redis.call('HINCRBY', key, 'failed:' .. ARGV[i], ARGV[i + 2])
  end
  redis.call('EXPIRE', key, ARGV[1])
end
