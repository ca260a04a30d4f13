// Seeded randomness (mulberry32), and data of all the kinds that sessions hold.
import { put } from './pages.mjs'

export const makeRandom = (seed) => {
  let state = seed | 0
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = (n) => Math.floor(next() * n)
  const pick = (list) => list[below(list.length)]
  const chance = (p) => next() < p
  return { next, below, pick, chance, maybe: (value) => (chance(0.5) ? value : undefined) }
}

const numbers = [
  0, 1, -1, 7, -7, 1.5, -0.25, 0.1, 1e-7, 1e21, 1e300, 5e-324, Number.MAX_VALUE, 2147483647, 2147483648, -2147483648, -2147483649, 4294967296,
  Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 53, 2 ** 63, 2 ** 64, 123456789012345680000, 12345678901.5, 3.141592653589793,
]
const strings = ['', ' ', 'text', 'Zoë', '漢字', '😀', '\u0000\u0001\u001f\u007f', '\u2028\u2029', '"\\/', "it's </script>", '2024-02-30', 'é'.repeat(40), '{"a":1}', 'null']
// Half of an astral character; BSON's strings cannot hold it.
const halves = ['\ud83d', 'x\ude00y']
const keys = ['a', 'b', 'c', 'A', 'aa', 'é', '漢', 'two words', '"', '\\', '\u2028', '', '0', '7', '10', '4294967294', '4294967295', '01', '-1', '1.5', 'toJSON', 'length', '$x', 'a.b']
// As keys of nested objects these are plain data; at the top of a session express-session cannot hold them.
const nestedKeys = [...keys, ...keys, '__proto__', 'constructor', 'hasOwnProperty', 'cookie', 'id', 'expires']

// text: the store keeps JSON text. Where it does not, halves of characters do not survive, and the drivers under connect-mongo give an
// array under a name like `constructor` back with Buffers for its objects. proto: the name `__proto__` survives.
export const makeData = ({ pick, below, chance }, { text, proto }) => {
  const kept = (list) => list.filter((key) => (text || !['constructor', 'hasOwnProperty'].includes(key)) && (proto || key !== '__proto__'))
  const [tops, names] = [kept(keys), kept(nestedKeys)]
  const scalar = () => pick([() => pick(numbers), () => pick(numbers), () => pick([...strings, ...(text ? halves : [])]), () => pick([true, false]), () => null])()
  const value = (depth) => {
    if (depth <= 0 || chance(0.6)) return scalar()
    return chance(0.4) ? Array.from({ length: below(4) }, () => value(depth - 1)) : nested(depth - 1)
  }
  const nested = (depth) => {
    const object = {}
    for (let left = below(5); left > 0; left--) put(object, pick(names), value(depth))
    return object
  }
  const deep = () => {
    let found = scalar()
    for (let left = 5 + below(25); left > 0; left--) found = chance(0.5) ? [found] : { d: found }
    return found
  }
  const any = () => (chance(0.05) ? deep() : value(3))
  const object = (most) => {
    const found = {}
    for (let left = below(most + 1); left > 0; left--) put(found, pick(tops), any())
    return found
  }
  return { any, object, key: () => pick(tops) }
}
