// Checkouts at a constant arrival rate, on two clocks: until the 2xx, and until every step is final.
//
//   k6 run -e BASE_URL=http://127.0.0.1:8000 -e STYLE=choreography -e RATE=50 -e DURATION=30s loadtest/k6.js
//
// An iteration that k6 could not begin in time is dropped, and the run fails: the latencies would leave out just
// the orders that had to wait. Settings: BASE_URL, STYLE (empty: the service's own), RATE (orders a second),
// DURATION, TOKEN (a caller's key), MOST_VUS (iterations under way at most).
import http from "k6/http";
import { check } from "k6";
import { Counter, Trend } from "k6/metrics";
import exec from "k6/execution";

const BASE_URL = (__ENV.BASE_URL || "http://127.0.0.1:8000").replace(/\/+$/, "");
const STYLE = __ENV.STYLE || "";
const RATE = Number(__ENV.RATE || 20);
const MOST_VUS = Number(__ENV.MOST_VUS || Math.max(50, RATE * 5));
const LONGEST_WAIT_S = 60;
const ONE_WAIT_S = 20;

const ack = new Trend("ack", true);
const completion = new Trend("completion", true);
const refused = new Counter("refused");
const unfinished = new Counter("unfinished");

export const options = {
  scenarios: {
    checkouts: {
      executor: "constant-arrival-rate",
      rate: RATE,
      timeUnit: "1s",
      duration: __ENV.DURATION || "30s",
      preAllocatedVUs: Math.min(MOST_VUS, Math.max(20, RATE)),
      maxVUs: MOST_VUS,
      gracefulStop: `${LONGEST_WAIT_S + 5}s`,
    },
  },
  thresholds: {
    dropped_iterations: ["count==0"],
    refused: ["count==0"],
    unfinished: ["count==0"],
    checks: ["rate==1"],
  },
  summaryTrendStats: ["med", "p(90)", "p(95)", "p(99)", "max"],
};

export default function () {
  const started = Date.now();
  const number = exec.scenario.iterationInTest;
  const query = STYLE ? `?style=${STYLE}` : "";
  const answer = http.post(`${BASE_URL}/checkouts${query}`, JSON.stringify(order(number)), {
    headers: headers({
      "Content-Type": "application/json",
      "Idempotency-Key": `"k6-${started}-${number}-${Math.random()}"`,
      Prefer: "respond-async",
    }),
    tags: { name: "place" },
  });
  if (!check(answer, { "the order is accepted": (r) => r.status === 201 || r.status === 202 })) {
    refused.add(1);
    return;
  }
  ack.add(Date.now() - started);
  let told = answer.json();
  while (told.status === "in_progress" && Date.now() - started < LONGEST_WAIT_S * 1000) {
    const now = http.get(`${BASE_URL}/checkouts/${told.order_id}`, {
      headers: headers({ Prefer: `wait=${ONE_WAIT_S}` }),
      tags: { name: "wait" },
      timeout: `${ONE_WAIT_S + 5}s`,
    });
    if (!check(now, { "the order can be read": (r) => r.status === 200 || r.status === 202 })) {
      break;
    }
    told = now.json();
  }
  if (check(told, { "the order is completed": (t) => t.status === "completed" })) {
    completion.add(Date.now() - started);
  } else {
    unfinished.add(1);
  }
}

function headers(own) {
  return __ENV.TOKEN ? { ...own, Authorization: `Bearer ${__ENV.TOKEN}` } : own;
}

function order(number) {
  return {
    customer: {
      name: "Ada Lovelace",
      email: `reader${number % 500}@example.com`,
      rewards_member: number % 5 !== 0,
    },
    currency: "GBP",
    lines: [{ sku: `BOOK-${(number % 199) + 1}`, quantity: 1, unit_price_minor: 1999 }],
    ship_to: { line1: "12 St James Sq", city: "London", postcode: "SW1Y 4JH", country: "GB" },
  };
}
