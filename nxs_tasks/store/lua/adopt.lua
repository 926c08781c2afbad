-- Whoever leads takes the entries of its schedule on: one that nobody has led yet counts from now on,
-- one that it has not is forgotten.
--
-- KEYS[1] string with TTL: who leads   KEYS[2] counter: the term
-- KEYS[3] hash: entry to its last run, JSON
-- ARGV[1] who asks   ARGV[2] its term   ARGV[3], … pairs: entry, and what counts if it has no run
--
-- Returns the runs as they are then: entry, run, entry, run, … · nothing if it does not lead.

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return {}
end
local known = {}
for i = 3, #ARGV, 2 do
  known[ARGV[i]] = true
  redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1])
end
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
  if not known[name] then
    redis.call('HDEL', KEYS[3], name)
  end
end
return redis.call('HGETALL', KEYS[3])
