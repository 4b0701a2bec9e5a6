-- Hands a publication over that is not kept, unless its idempotency key is remembered.
--
-- KEYS: what the key is remembered under.
-- ARGV: PUBLISH or SPUBLISH; the subject; the message, finished; milliseconds of remembering.
-- Returns "0:", or the position that is remembered.
local known = redis.call('GET', KEYS[1])
if known then
  return known
end
redis.call('SET', KEYS[1], '0:', 'PX', ARGV[4])
redis.call(ARGV[1], ARGV[2], ARGV[3])
return '0:'
