-- Stands behind another script, and runs it for one run of an entry of the schedule: once, and only
-- while who sends it leads in its term. What it writes and that it was sent are one step, so no
-- successor repeats it, and none misses it.
--
-- The other script is the function `write`, and sees its own keys and arguments: all but these.
--
-- KEYS[last - 2] string with TTL: who leads   KEYS[last - 1] counter: the term
-- KEYS[last] hash: entry to its last run, JSON
-- ARGV[last - 4] who sends   ARGV[last - 3] its term   ARGV[last - 2] entry
-- ARGV[last - 1] the entry's last run as the sender knows it, empty if none   ARGV[last] this run
--
-- Returns what the other script returns · {"nxs: sent"} if this very run was sent before ·
-- {"nxs: another"} if another run of the entry came between · {"nxs: not leading"}. An error of the
-- other script leaves the run to be sent.

local sender, term, entry, before, run = unpack(ARGV, #ARGV - 4)
local lease, counter, runs = unpack(KEYS, #KEYS - 2)
local last = redis.call('HGET', runs, entry) or ''
if last == run then
  return {'nxs: sent'}
end
if redis.call('GET', lease) ~= sender or redis.call('GET', counter) ~= term then
  return {'nxs: not leading'}
end
if last ~= before then
  return {'nxs: another'}
end
local answer = write({unpack(KEYS, 1, #KEYS - 3)}, {unpack(ARGV, 1, #ARGV - 5)})
if type(answer) == 'table' and answer.err then
  return answer
end
redis.call('HSET', runs, entry, run)
return answer
