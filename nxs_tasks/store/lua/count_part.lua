-- One more part belongs to a chord.
--
-- KEYS[1] string: by how many parts the chord has grown
--
-- Returns that number.

return redis.call('INCR', KEYS[1])
