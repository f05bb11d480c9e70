// Tells the origin of each request that came whole, as node's parser read it: node.js LISTEN ORIGIN
const http = require("http");

const [listen, origin] = process.argv.slice(2).map((at) => at.split(":"));

const tell = (method, path, then) => {
  const told = http.request({ host: origin[0], port: origin[1], method, path, agent: false }, (answer) => {
    answer.resume();
    answer.on("end", then);
  });
  told.end();
};

const server = http.createServer((request, response) => {
  request.resume();
  // Not emitted of a body that was cut off.
  request.on("end", () => tell(request.method, request.url, () => response.end("done")));
});
server.listen(Number(listen[1]), listen[0]);
