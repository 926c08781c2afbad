-- Free a unique key, if that task has it.
--
-- KEYS[1] string: who has the unique key (`unique.py`)
-- ARGV[1] task id
--
-- Returns 1 if it was freed, else 0.

local owner = redis.call('GET', KEYS[1])
if not owner or string.match(owner, '^[^\n]*') ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
