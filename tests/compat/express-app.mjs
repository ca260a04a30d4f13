// The app as people have it today: Express with express-session and connect-mongo. Options come as JSON in OPTIONS:
// { url, collection, secret, session: {express-session's}, store: {connect-mongo's} }. Prints its port. The pages are those of plain-app.mjs.
import express from 'express'
import session from 'express-session'
import MongoStore from 'connect-mongo'

const options = JSON.parse(process.env.OPTIONS)
const store = MongoStore.create({ mongoUrl: options.url, collectionName: options.collection, ...options.store })
const app = express()
app.use(session({ secret: options.secret, store, ...options.session }))

// connect-mongo with touchAfter shows its own `lastModified` in the session; the app did not put it there.
const data = (req) => {
  const { cookie, lastModified, ...rest } = req.session
  return rest
}
const argument = (req) => JSON.parse(req.query.arg)

app.get('/get', (req, res) => res.json(data(req)))
app.get('/login', (req, res, next) => {
  req.session.regenerate((error) => {
    if (error) return next(error)
    req.session.user = argument(req)
    res.json(data(req))
  })
})
app.get('/inc', (req, res) => {
  req.session.n = (req.session.n ?? 0) + 1
  res.json(data(req))
})
app.get('/set', (req, res) => {
  for (const [key, value] of Object.entries(argument(req))) {
    if (value === null) delete req.session[key]
    else req.session[key] = value
  }
  res.json(data(req))
})
app.get('/replace', (req, res) => {
  for (const key of Object.keys(data(req))) delete req.session[key]
  Object.assign(req.session, argument(req))
  res.json(data(req))
})
app.get('/save', (req, res, next) => req.session.save((error) => (error ? next(error) : res.json(data(req)))))
app.get('/unset', (req, res) => {
  req.session = null
  res.json({})
})
app.get('/logout', (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.json({}))))

// Without the TTL index a test would race with it.
store.collectionP.then(() => {
  const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
})
