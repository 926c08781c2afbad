-- Give a lease up, if it is ours.
--
-- KEYS[1] string with TTL: the holder
-- ARGV[1] who resigns
--
-- Returns 1 if it was ours, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
