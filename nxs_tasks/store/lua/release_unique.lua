-- Free a unique key, if that task has it.
--
-- KEYS[1] string: id of the task that has the unique key
-- ARGV[1] task id
--
-- Returns 1 if it was freed, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
