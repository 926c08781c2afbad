-- Stands before another script and stops it, if a task's message is no longer held by who took it.
--
-- KEYS[last] hash: in flight, of the process that took the message
-- ARGV[last - 2] token   ARGV[last - 1] database of that hash, empty if it is this one
-- ARGV[last] this database
--
-- Returns {"nxs: taken"}, and nothing of what follows is run, if the message is no longer held.

do
  local database = ARGV[#ARGV - 1]
  if database ~= '' then redis.call('SELECT', database) end
  local held = redis.call('HEXISTS', KEYS[#KEYS], ARGV[#ARGV - 2])
  if database ~= '' then redis.call('SELECT', ARGV[#ARGV]) end
  if held == 0 then
    return {'nxs: taken'}
  end
end
